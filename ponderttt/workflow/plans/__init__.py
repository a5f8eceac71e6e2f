"""The logic of the rules: parameters, inputs that depend on settings, resources."""
