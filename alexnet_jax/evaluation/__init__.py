"""The paper's two test protocols, centre and ten-view, over every validation image."""
