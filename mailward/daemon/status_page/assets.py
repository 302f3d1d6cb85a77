"""The status page's style and script, and the policy that keeps a browser from taking anything else from it or for it.

All of the page is in the page. The script only fetches it again and swaps what has changed, so that nothing jumps; without it
the browser loads the page anew, less often.
"""

from __future__ import annotations

import base64
import hashlib

REFRESH_SECONDS = 15
REFRESH_SECONDS_WITHOUT_SCRIPT = 30

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--card:#f6f8fa;--line:#d0d7de;--dim:#59636e;--link:#0757ad;
--good:#1a7f5a;--plain:#7f8b98;--later:#6a63d4;--odd:#9a6500;--bad:#b3243c}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--card:#161b22;--line:#30363d;--dim:#9aa4ae;
--link:#79b8ff;--good:#3fb68b;--plain:#7d8792;--later:#a29cf4;--odd:#e0a030;--bad:#ff7b86}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1rem;color:var(--ink);background:var(--paper);
overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:0}
p{margin:.25rem 0}a{color:var(--link)}
small,.dim,th,figcaption{color:var(--dim)}small,figcaption,th{font-size:.8rem;font-weight:400}
.bad a{color:inherit}.good{color:var(--good)}.odd{color:var(--odd)}.bad{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1rem;
align-items:start}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem;min-width:0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.2rem .6rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th:last-child,td:last-child{padding-right:0}.n{text-align:right;white-space:nowrap}.n,.w{overflow-wrap:normal}
.swatch{display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.4em}
i.good{background:var(--good)}i.plain{background:var(--plain)}i.later{background:var(--later)}i.odd{background:var(--odd)}
i.bad{background:var(--bad)}
.plots{display:grid;grid-template-columns:1fr 1fr;gap:.75rem}
figure{margin:.6rem 0 0;min-width:0}
.plot{display:block;width:100%;height:3.5rem;border-bottom:1px solid var(--line)}td .plot{height:1.4rem;min-width:5rem}
path.good{fill:var(--good)}path.plain{fill:var(--plain)}path.later{fill:var(--later)}path.odd{fill:var(--odd)}
path.bad{fill:var(--bad)}
.said{border-left:3px solid var(--odd);padding-left:.6rem;margin:.75rem 0}.said.critical{border-color:var(--bad)}
code{font:.8rem/1.4 ui-monospace,monospace}summary{cursor:pointer;margin:2rem 0 .5rem;font-weight:600}
#stale{display:none}.stale #stale{display:block}
@media(max-width:30rem){body{padding:.75rem;font-size:15px}th,td{padding-right:.4rem}.plots{gap:.5rem}}
"""

SCRIPT = f"""
"use strict";
const main = document.querySelector("main");
const topmost = () => [...main.querySelectorAll("[id]")].find(one => one.getBoundingClientRect().bottom > 0);
async function refresh() {{
  if (document.hidden || String(getSelection())) return;
  try {{
    const reply = await fetch("", {{cache: "no-store", signal: AbortSignal.timeout(10000)}});
    if (!reply.ok) throw new Error(reply.status);
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("main");
    const opened = new Set([...main.querySelectorAll("details[open]")].map(one => one.id));
    fresh.querySelectorAll("details").forEach(one => {{ one.open = opened.has(one.id); }});
    const seen = topmost(), before = seen && seen.getBoundingClientRect().top, focused = document.activeElement.id;
    main.replaceChildren(...fresh.childNodes);
    const again = seen && document.getElementById(seen.id);
    if (again && scrollY > 0) scrollBy({{top: again.getBoundingClientRect().top - before, behavior: "instant"}});
    if (focused && document.getElementById(focused)) document.getElementById(focused).focus({{preventScroll: true}});
    document.body.classList.remove("stale");
  }} catch (error) {{
    document.body.classList.add("stale");
  }}
}}
setInterval(refresh, {REFRESH_SECONDS}000);
document.addEventListener("visibilitychange", refresh);
"""


def policy() -> str:
    """Return the page's Content-Security-Policy: this style, this script, this server, and nothing else."""
    return (
        f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
