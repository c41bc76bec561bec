//! How a report looks: one style sheet, light and dark, from a phone to a wide screen.

/// The whole style sheet. It stands in the page, and the page's policy names its digest, so nothing else can style or load anything.
pub(super) const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1b1f24;--soft:#5c6670;--line:#e1e4e8;--well:#f4f5f6;
--good:#1a7f37;--bad:#c62828;--warn:#9a6700;--back:#8250df;--calm:#57606a;--go:#0969da;--goodbg:#dafbe1;--badbg:#ffe3e0;--warnbg:#fff4cc;--backbg:#f1e7fd;--calmbg:#eaeef2}
@media(prefers-color-scheme:dark){:root{--bg:#0f1216;--card:#171b21;--ink:#e6e9ed;--soft:#9aa4af;--line:#2b323b;--well:#11151a;
--good:#4cc26a;--bad:#ff7b72;--warn:#e3b341;--back:#c297ff;--calm:#9aa4af;--go:#6cb2ff;--goodbg:#12301b;--badbg:#3c1618;--warnbg:#332701;--backbg:#2a1c44;--calmbg:#232a32}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;overflow-wrap:anywhere}
main{max-width:66rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 .6rem 0 0;display:inline}
h2{font-size:1.1rem;margin:0 0 .9rem}
h3{font-size:.95rem;margin:1rem 0 .35rem}
code,pre,.id{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.875em}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:.15em}
a:hover{color:var(--go)}
:focus-visible{outline:2px solid var(--go);outline-offset:2px;border-radius:4px}
section,.head{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.1rem 1.2rem;margin:0 0 1rem}
.badge{display:inline-block;border-radius:99px;padding:.1rem .65rem;font-size:.8rem;font-weight:600;white-space:nowrap;vertical-align:.2em;background:var(--calmbg);color:var(--calm)}
.badge.good{background:var(--goodbg);color:var(--good)}.badge.bad{background:var(--badbg);color:var(--bad)}
.badge.warn{background:var(--warnbg);color:var(--warn)}.badge.back{background:var(--backbg);color:var(--back)}
dl.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(12.5rem,1fr));gap:.7rem 1.2rem;margin:1rem 0 0}
dt{color:var(--soft);font-size:.8rem}dd{margin:0}
.why{border-left:4px solid var(--back);padding:.1rem 0 .1rem .9rem;margin:0 0 .8rem}
ul{margin:.3rem 0;padding-left:1.2rem}
.soft{color:var(--soft)}.bad-text{color:var(--bad)}
.axis{display:flex;justify-content:space-between;color:var(--soft);font-size:.75rem;margin:0 6.2rem .25rem 13.6rem}
.row{display:grid;grid-template-columns:13rem 1fr 5.6rem;gap:.6rem;align-items:center;padding:.16rem 0;font-size:.9rem}
.row>a{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.row>span{text-align:right;color:var(--soft);font-size:.8rem;white-space:nowrap;font-variant-numeric:tabular-nums}
.row svg{display:block;width:100%;height:1.1rem;background:var(--well);border-radius:5px}
.lane{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
.bar{fill:var(--calm)}.bar.good{fill:var(--good)}.bar.bad{fill:var(--bad)}.bar.back{fill:var(--back)}.bar.warn{fill:var(--warn)}
.undo{stroke:var(--back);stroke-width:2;vector-effect:non-scaling-stroke;stroke-dasharray:4 3}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;color:var(--soft);font-size:.8rem;margin:.8rem 0 0;padding:0;list-style:none}
.key svg{width:.8rem;height:.8rem;vertical-align:-.08rem;margin-right:.35rem}
.plan{list-style:none;margin:0;padding:0}
.plan>li{display:grid;grid-template-columns:1.6rem 1fr;padding:.4rem 0;border-top:1px solid var(--line)}
.plan>li:first-child{border-top:0}
.sign{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-weight:700;color:var(--soft)}
.sign.add{color:var(--good)}.sign.del{color:var(--bad)}.sign.mod{color:var(--warn)}
.diff{list-style:none;margin:.25rem 0 0;padding:0;font-size:.875rem;color:var(--soft)}
.diff ul{list-style:none;padding-left:1.1rem;margin:0}
details{border-top:1px solid var(--line)}
section>details:first-of-type{border-top:0}
summary{cursor:pointer;padding:.55rem 0;display:flex;gap:.6rem;align-items:baseline;flex-wrap:wrap;list-style:none}
summary::-webkit-details-marker{display:none}
summary::before{content:'\\25B8';color:var(--soft);width:.8em;flex:none}
details[open]>summary::before{content:'\\25BE'}
summary .grow{flex:1;min-width:8rem}
summary .soft{font-size:.85rem}
.body{padding:0 0 .9rem 1.4rem}
pre{background:var(--well);border:1px solid var(--line);border-radius:8px;padding:.6rem .7rem;margin:.4rem 0;overflow:auto;max-height:32rem;white-space:pre-wrap;line-height:1.45;tab-size:4}
pre .e{color:var(--warn)}pre .n{color:var(--soft);font-style:italic}
footer{color:var(--soft);font-size:.8rem;margin:1.5rem 0 0}
@media(max-width:44rem){main{padding:.8rem .6rem 2rem}section,.head{padding:.9rem .8rem}h1{font-size:1.3rem}
.axis{margin:0 0 .25rem}.axis .fine{display:none}
.row{grid-template-columns:1fr auto;gap:.1rem .6rem;padding:.35rem 0}.row svg{grid-column:1/-1;grid-row:2}
.row>a{white-space:normal}summary .grow{min-width:5rem}.body{padding-left:.2rem}dl.facts{grid-template-columns:1fr 1fr}}
@media print{body{background:#fff}section,.head{break-inside:avoid}pre{max-height:none}}
";
