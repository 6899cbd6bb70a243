"""Who belongs to the cluster, and how that is proven: keys, passes, roster, invitations (SECURITY sections 5 and 6)."""
