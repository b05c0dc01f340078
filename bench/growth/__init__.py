"""How Holdfast grows. `bench/grow` says how to use it; one module for each thing that has to be done."""
