"""Django settings modules. `local` is the default: everything comes from the file named by PRODSYS_CONFIG."""
