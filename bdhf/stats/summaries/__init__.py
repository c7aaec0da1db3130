"""All arms at once: costs, performance profiles, ranks, survival."""
