"""Why does scaling stop an attack?"""
