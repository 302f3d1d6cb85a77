# Files what mailward-auth-verify quarantined into Junk. Install it as a script that runs before each user's own
# (sieve-2.3.conf, sieve-2.4.conf).
#
# The field alone decides: the verifier deletes it from all mail that comes in, so that nobody else can have written it.
# A rule over Authentication-Results would have to tell our field from those that other servers wrote.
require ["fileinto", "mailbox"];

if exists "X-Mailward-Quarantine" {
    # The folder's name as your namespace has it: "INBOX.Junk" where everything lies below INBOX.
    fileinto :create "Junk";
    # Nothing follows: no rule of the user's own files it elsewhere, and no vacation notice answers a forged sender.
    stop;
}
