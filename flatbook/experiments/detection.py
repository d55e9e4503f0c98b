"""Does sharpness give an attack away?"""
