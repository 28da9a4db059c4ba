"""compare-file-copy: Postern's copies beside those of scp, rsync, tar, qemu-ga, socat and a bare loop."""
