"""What does an attack walk through?"""
