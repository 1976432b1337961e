"""What the library stands on: versions that agree, modAL mended, former names of modules, torch loaded late."""
