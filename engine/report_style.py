"""The look of the report, light and dark, wide and narrow; colours by Okabe and Ito, whom the colour-blind can follow."""

LIGHT = {
    "back": "#ffffff", "raised": "#f5f6f8", "text": "#1b1f24", "faint": "#596170", "line": "#d5d9e0",
    "good": "#00704f", "doubtful": "#8a5a00", "bad": "#b3261e",
    "c0": "#0072b2", "c1": "#c44e00", "c2": "#008a62", "c3": "#a9447f", "c4": "#3a9bd5", "c5": "#a97800", "c6": "#4d4d4d",
    "c7": "#7a5cc8", "rest": "#9aa1ab",
}  # fmt: skip
DARK = {
    "back": "#14171b", "raised": "#1d2127", "text": "#e8eaee", "faint": "#a3acb9", "line": "#363d47",
    "good": "#43cf9f", "doubtful": "#f0b429", "bad": "#ff8278",
    "c0": "#56b0f0", "c1": "#ff8f4d", "c2": "#2fd0a0", "c3": "#f08cc4", "c4": "#9bd8ff", "c5": "#f0c419", "c6": "#d0d0d0",
    "c7": "#b8a2ff", "rest": "#737c88",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_COLOURED = "".join(
    f".line.c{n}{{stroke:var(--c{n})}}.dot.c{n},.swatch.c{n},.mark.c{n}{{fill:var(--c{n});background:var(--c{n})}}"
    f".box.c{n}{{border-color:var(--c{n})}}"
    for n in range(8)
)

STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1160px;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:.2rem 0 .5rem;overflow-wrap:anywhere}
h2{font-size:1.35rem;margin:2.6rem 0 .4rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.6rem 0 .4rem;overflow-wrap:anywhere}
p{margin:.4rem 0;max-width:75ch;overflow-wrap:anywhere}
small{color:var(--faint);font-size:.85em}
a{color:var(--c0)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.8rem 0}
.note,.faint{color:var(--faint)}
.note{border-left:3px solid var(--line);padding-left:.7rem}
.verdict{list-style:none;padding:0;margin:.6rem 0}
.verdict li{margin:.35rem 0;padding-left:1.7rem;text-indent:-1.7rem;max-width:80ch}
.verdict b,.answer b{display:inline-block;width:1.7rem;text-indent:0}
.good b{color:var(--good)}.doubtful b{color:var(--doubtful)}.bad b{color:var(--bad)}
.answer{margin:.6rem 0;padding:.4rem .9rem;background:var(--raised);border-left:4px solid var(--faint);}
.answer>p{font-size:1.15rem;max-width:none}.answer .verdict{margin:0}
.answer.good{border-color:var(--good)}.answer.doubtful{border-color:var(--doubtful)}.answer.bad{border-color:var(--bad)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:1rem;margin:.6rem 0}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));gap:1rem;margin:.6rem 0}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:0 1.5rem}
.bars{max-width:720px}
.wide>div{min-width:0}.wide .row{grid-template-columns:1fr}
.wide{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:1rem;margin:.6rem 0}
figure{margin:0}
.card{background:var(--raised);border-radius:8px;padding:.7rem .8rem}
.card figcaption b{display:block}
.card figcaption small{display:block;line-height:1.3}
.card svg{margin-top:.3rem}
.card p{margin:.15rem 0;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-size:11.5px;fill:var(--faint)}
text.end{text-anchor:end}text.middle{text-anchor:middle}
path.grid{stroke:var(--line);fill:none;stroke-width:1}
path.reference{stroke:var(--text);stroke-width:1.2;stroke-dasharray:5 4;fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.bar{fill:var(--c0)}.bar.self{fill:var(--c1)}
.swatch{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.4em}
.mark{background:none!important;fill-opacity:.85}
.mark.rest{fill:var(--rest)}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.85rem;margin:.3rem 0;padding:0;list-style:none}
.legend li{display:flex;align-items:center;overflow-wrap:anywhere}
.legend svg{width:14px;height:14px;flex:none;margin-right:.35em}
.strip{display:flex;flex-wrap:wrap;gap:.6rem;margin:.4rem 0 .9rem}
.thumb{width:106px}
.thumb span{display:block;position:relative;background:#000}
.thumb img{display:block;width:100%;height:auto;image-rendering:pixelated}
.thumb figcaption{font-size:.75rem;line-height:1.3;color:var(--faint);overflow-wrap:anywhere;margin-top:.15rem}
.thumb.query span{outline:3px solid var(--c0);outline-offset:1px}
.thumb.same span{outline:3px solid var(--c2)}
.thumb.like span{outline:3px dotted var(--c5)}
.thumb.other span{outline:3px dashed var(--c1)}
.thumb.broad{width:200px}
.box{position:absolute;border:2px solid}
.row{display:grid;grid-template-columns:minmax(150px,220px) 1fr;gap:.2rem 1rem;align-items:start;padding:.6rem 0}
.row{border-top:1px solid var(--line)}
.row p{margin:.1rem 0;font-size:.9rem}
@media (max-width:600px){.row{grid-template-columns:1fr}.thumb{width:84px}main{padding:1rem .9rem 3rem}
.bars text{font-size:19px}.prose thead{display:none}.prose tr,.prose th,.prose td{display:block;border:0;padding:.1rem 0}
.prose tr{border-bottom:1px solid var(--line);padding:.5rem 0}
.prose td::before{content:attr(data-label)": ";color:var(--faint)}}
.drawn{overflow-x:auto;margin:.8rem 0}
.drawn img{max-width:100%;height:auto;display:block;border-radius:6px}
@media (max-width:600px){.drawn img{max-width:none}}
.drawn figcaption{font-size:.85rem;color:var(--faint)}
.scroll{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
thead th{color:var(--faint);font-weight:600;white-space:nowrap}
tbody th{font-weight:600}
td{white-space:nowrap}
.prose td,.prose thead th{white-space:normal}.prose td,.prose tbody th{min-width:9.8em}
.scroll th:first-child{position:sticky;left:0;background:var(--back)}
details{margin:.5rem 0;border:1px solid var(--line);border-radius:6px;padding:.4rem .8rem}
summary{cursor:pointer;overflow-wrap:anywhere}
pre{overflow-x:auto;font-size:.8rem;line-height:1.4}
""" + _COLOURED
)
