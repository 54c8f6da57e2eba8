//! Wires the kernel side, the observer and the faces; starts and stops them.
