# The one shell of a course. Reads names of files from its standard input, runs each one's commands here, so that what
# a block sets the next one has, and answers each with its exit code and the line of the command that failed (0: none
# that is known). Commands see no input, and none of these channels.
exec 3<&0 4>&1 </dev/null >/dev/null
# A reader sees each command fail; here the first one that does ends its block, wherever in a pipeline it stands.
set -o pipefail
while IFS= read -r -u 3 kodo_block; do
	kodo_line=0
	trap 'kodo_code=$?; if [[ ${BASH_SOURCE[0]} == "$kodo_block" ]]; then kodo_line=$LINENO; return "$kodo_code"; fi' ERR
	# shellcheck source=/dev/null
	. "$kodo_block" >"$kodo_block.output" 2>&1 3<&- 4>&-
	kodo_code=$?
	trap - ERR
	printf '%s %s\n' "$kodo_code" "$kodo_line" >&4
done
