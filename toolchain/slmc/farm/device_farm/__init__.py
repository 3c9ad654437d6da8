"""AWS Device Farm as a place of the farm: a phone there is asked by the same code as one on a cable here.

A run there has a Linux machine, the test host, with a phone attached to its adb. `package` makes what is uploaded: slmc
itself, the files that the phone needs, and a test spec that starts `session` on the host. `asker` uploads it, has it
run, and puts together what came back; `service` is what Device Farm is asked for.
"""
