"""What a reader is shown: tables, figures, and the page that holds them."""
