"""What the processes of a mesh hold while they are asked for shapes that never repeat."""
