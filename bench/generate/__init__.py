"""The bench of generated texts: tokens a second and waiting times beside onnxruntime-genai and llama.cpp."""
