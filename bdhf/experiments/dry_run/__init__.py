"""What cannot run is reported before anything is planned or claimed."""
