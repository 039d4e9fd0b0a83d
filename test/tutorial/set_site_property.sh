#!/usr/bin/env bash
# set_site_property.sh BEARER VALUE NAME: sets a site property, as step 1 of LivePerson's File Sharing page calls it. The page's
# own script was not published; this one sends what its published siblings send.
#
# Wants LP_ACCOUNT and LP_ACCOUNTCONFIGREADWRITE (the host that the Domain API gives for accountConfigReadWrite). Prints
# LivePerson's answer, and fails unless it is a success.
set -euo pipefail
[ $# = 3 ] || { echo "usage: set_site_property.sh BEARER VALUE NAME" >&2; exit 2; }
bearer=$1 value=$2 name=$3
: "${LP_ACCOUNT:?is not set}" "${LP_ACCOUNTCONFIGREADWRITE:?is not set}"
url="https://$LP_ACCOUNTCONFIGREADWRITE/api/account/$LP_ACCOUNT/configuration/setting/properties/$name?v=3.0"

# By standard input: what stands on a command line can be seen by everybody on the machine.
ask() { curl -sS --fail-with-body -K - "$@" <<<"header = \"Authorization: Bearer $bearer\""; }

# LivePerson documents no number for the type of a boolean: the property's own is sent back, and 4 where there is none yet.
type=$(ask -H "Accept: application/json" "$url" 2>/dev/null | sed -n 's/.*"type": *\([0-9][0-9]*\).*/\1/p') || true
# If-Match is the revision that the caller knows: -1 is any. "deleted" is a string, in this API.
ask -X PUT -H "If-Match: -1" -H "Content-Type: application/json" -H "Accept: application/json" \
  -d '{"id":"'"$name"'","type":'"${type:-4}"',"propertyValue":{"value":"'"$value"'"},"deleted":"false"}' "$url"
echo
