"""Do the other layers see the same?"""
