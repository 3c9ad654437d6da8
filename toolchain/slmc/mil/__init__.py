"""Core ML's ML programs, run by torch from the saved package alone: it stands in for Apple's runtime.

    package       a .mlpackage as saved: functions, operations, constants; whatever is damaged is named
    weights       constants as the interpreter holds them, decoded once for all functions of a package
    operations    what each operation type computes
    interpreter   a function bound to all that, and run with a state

Values of float16 are held in float32: each is rounded to float16 once, when its operation has computed it in float32.
Nothing here tells how an Apple device rounds, places or refuses an operation.
"""
