"""What stands in records: headers and their codecs, checked values, what senders and handlers give. No client, no core."""
