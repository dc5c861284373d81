"""nginx with nchan, one worker: the C hub. Events are kept in memory only."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.loadgen import Target, event, get, post
from benchmarks.peers.having import Unavailable, package, run, spawn

NAME = "nchan"

_CONFIG = """
load_module {module};
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;
worker_rlimit_nofile 19000;
events {{ worker_connections 18000; }}
http {{
  access_log off; keepalive_requests 100000000; nchan_shared_memory_size 512M;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /pub {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 4096; }}
    location = /sub {{
      nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


def prepare() -> str:
    """Return the versions of nginx and of the module's package."""
    nginx = package("nginx", "nginx", "libnginx-mod-nchan")
    _module()
    shown = run(nginx, "-v").strip().rpartition(" ")[2]
    version = run("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan")
    return f"{shown}, libnginx-mod-nchan {version}"


def _module() -> Path:
    module = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
    if not module.exists():
        raise Unavailable("nginx is here without nchan (Debian: apt install libnginx-mod-nchan)")
    return module


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """One process that is master and worker."""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(module=_module(), folder=folder, port=port))
    return spawn([package("nginx", "nginx"), "-c", config])


def target(port: int, size: int) -> Target:
    """One channel."""
    return Target(port, [], get("/sub"), [post("/pub", event(size))])
