"""Who may call a route: judged, written, asked."""
