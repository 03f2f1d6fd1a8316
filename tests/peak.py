"""How much memory a process has taken at most, said by itself."""

# KiB. What resource.getrusage says of a process that has just begun is what the one had that began it, if that is more.
PRINT_PEAK = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
