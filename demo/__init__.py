"""The demo: the mesh at work on real inputs, shown in the terminal and on one page. Run it with `scripts/demo`.

models ─► mesh (started) ─► inputs ─► tasks ─► answers ─► terminal
                                                      └─► page (demo.html)
"""
