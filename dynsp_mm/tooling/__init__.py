"""What commands share; nothing else imports it."""
