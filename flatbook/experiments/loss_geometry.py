"""How does the loss rise on the way to an attack?"""
