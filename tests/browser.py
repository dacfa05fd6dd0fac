"""A page in headless Chromium, served from this machine: what it fetched, what it complained of, how wide it is."""

import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading

import pytest

# Shows PAGE in a frame of so many pixels, and writes down what can be seen of it from outside.
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,">
<iframe src="PAGE" width="WIDTH" height="900" style="border: 0"></iframe><pre></pre>
<script>
onload = () => {
  const inner = document.querySelector('iframe').contentWindow, page = inner.document;
  const pictures = [...page.images];
  for (const details of page.querySelectorAll('details')) details.open = true;
  document.querySelector('pre').textContent = JSON.stringify({
    title: page.title,
    width: page.documentElement.scrollWidth,
    fetched: inner.performance.getEntriesByType('resource').map(entry => entry.name),
    scripts: page.scripts.length,
    pictures: pictures.length,
    broken: pictures.filter(picture => !picture.complete || !picture.naturalWidth).map(picture => picture.alt),
    drawings: page.querySelectorAll('svg').length,
    elements: page.querySelectorAll('body *').length,
    paper: inner.getComputedStyle(page.body).backgroundColor,
    ink: inner.getComputedStyle(page.querySelector('svg text')).fill,
    text: page.body.innerText,
  });
};
</script>"""


def chromium():
    """The browser's command; without one the test is skipped, or fails where REPORT_BROWSER=required is set."""
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not found and os.environ.get('REPORT_BROWSER') == 'required':
        pytest.fail('REPORT_BROWSER=required, and there is no chromium')
    return found or pytest.skip('no chromium here: REPORT_BROWSER=required where it must not be left out')


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, folder):
        self.asked = []
        super().__init__(('127.0.0.1', 0), functools.partial(_Handler, directory=str(folder)))


class _Handler(http.server.SimpleHTTPRequestHandler):
    def send_response(self, code, message=None):
        self.server.asked.append(self.path)
        super().send_response(code, message)

    def log_message(self, *arguments):
        pass


def look_at(path, *, width, dark=False):
    """What _FRAME says of the HTML file, with 'asked', the paths that the server was asked for, and 'console'."""
    frame = path.with_name(f'{path.stem}.frame.html')
    frame.write_text(_FRAME.replace('PAGE', path.name).replace('WIDTH', str(width)))
    with _Server(path.parent) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            chromium(), '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
            '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-proxy-server',
            '--disable-dev-shm-usage', f'--user-data-dir={profile}', '--enable-logging=stderr', '--dump-dom',
            '--virtual-time-budget=20000', f'--blink-settings=preferredColorScheme={0 if dark else 1}',
            f'http://127.0.0.1:{server.server_port}/{frame.name}',
        ]  # fmt: skip
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        server.shutdown()
    frame.unlink()
    found = re.search(r'<pre>(\{.*\})</pre>', process.stdout, re.DOTALL)
    assert found, f'{process.stdout[-500:]}\n{process.stderr[-2000:]}'

    console = [line for line in process.stderr.splitlines() if 'CONSOLE' in line]
    return json.loads(html.unescape(found[1])) | {'asked': server.asked, 'console': console}
