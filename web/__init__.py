"""A static page that restores images in the browser: `build` puts it together, `serve` shows it."""
