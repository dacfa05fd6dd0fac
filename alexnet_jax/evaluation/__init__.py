"""The paper's two test protocols, centre and ten-view, and what follows from them."""
