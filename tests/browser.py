"""Opens pages in headless Chromium, served from this machine, and reports what they fetch, log and show."""

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

# Shows each page in a frame of so many pixels, and writes down what can be seen of it from outside.
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,">
FRAMES<pre></pre>
<script>
onload = () => {
  const describe = frame => {
    const inner = frame.contentWindow, page = inner.document;
    const pictures = [...page.images];
    for (const details of page.querySelectorAll('details')) details.open = true;
    return {
      title: page.title,
      available: frame.clientWidth,
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
    };
  };
  const frames = [...document.querySelectorAll('iframe')];
  document.querySelector('pre').textContent = JSON.stringify(frames.map(describe));
};
</script>"""


def find_chromium():
    """Finds the browser's command; without one the test is skipped, or fails where REPORT_BROWSER=required is set."""
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not found and os.environ.get('REPORT_BROWSER') == 'required':
        pytest.fail('REPORT_BROWSER=required, and there is no chromium')
    return found or pytest.skip('no chromium here: REPORT_BROWSER=required where it must not be left out')


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, folder):
        self.requests = []
        super().__init__(('127.0.0.1', 0), functools.partial(_Handler, directory=str(folder)))


class _Handler(http.server.SimpleHTTPRequestHandler):
    def send_response(self, code, message=None):
        self.server.requests.append(self.path)
        super().send_response(code, message)

    def log_message(self, *arguments):
        pass


def open_pages(paths, *, widths, dark=False):
    """Opens HTML files of one folder in frames of each width; returns what _FRAME tells, console and requests."""
    frame = paths[0].with_name('frame.html')
    tag = '<iframe src="{}" width="{}" height="900" style="border: 0"></iframe>'
    frame.write_text(_FRAME.replace('FRAMES', ''.join(tag.format(path.name, w) for path in paths for w in widths)))
    with _Server(frame.parent) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            find_chromium(), '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
            '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-proxy-server',
            '--disable-dev-shm-usage', f'--user-data-dir={profile}', '--enable-logging=stderr', '--dump-dom',
            '--virtual-time-budget=20000', f'--blink-settings=preferredColorScheme={0 if dark else 1}',
            f'http://127.0.0.1:{server.server_port}/{frame.name}',
        ]  # fmt: skip
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        server.shutdown()
    frame.unlink()
    found = re.search(r'<pre>(\[\{.*\}\])</pre>', process.stdout, re.DOTALL)
    assert found, f'{process.stdout[-500:]}\n{process.stderr[-2000:]}'

    console = [line for line in process.stderr.splitlines() if 'CONSOLE' in line]
    return json.loads(html.unescape(found[1])), console, server.requests
