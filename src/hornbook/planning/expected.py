"""stub"""
def bring_along(a, b): pass
