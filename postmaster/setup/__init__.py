"""`mailward setup`: what a running Postfix and Dovecot need to ask Mailward, shown, applied and taken back."""
