"""What a run will need and how it should go, before it runs; and how it went. torch is imported to measure or fit."""
