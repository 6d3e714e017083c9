"""Network address translation for one network; its parts are the packages, the translator joins them."""
