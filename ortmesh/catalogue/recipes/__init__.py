"""Recipes: each turns the weights that a package carries into the ONNX files that we serve.

A recipe is a module with a constant `OUTPUTS` and one function, `convert(sources, out)`:
`sources` maps the base name of each file taken from the package to its path, `out` is an empty
directory. The same sources give the same bytes. Recipes need NumPy, onnx and readers of weights
(safetensors, gguf) only.
"""
