"""Are robust networks flat?"""
