# The same thing many times over, each round really run and with another seed; at the end what a reader needs to believe
# it, or to repeat the round that failed. Sourced by the soak tasks, which define what a round is:
#
#   round SEED   runs one round; all that it prints is its log
#   seen LOG     says in a few words what a round that ended well has shown, and fails if that is not enough
#
# shellcheck shell=bash

# What an interrupted round gets to clean up after itself, in seconds: the crash demo stops the service that it started.
SOAK_GRACE=15

# soak NAME TASK ROUNDS [FIRST_SEED]: exit code 1 if a round failed, 130 if it was interrupted, as a shell says of Ctrl-C.
soak() {
	local name=$1 task=$2 rounds=$3 first=${4:-$((RANDOM << 15 | RANDOM))}
	local logs=.data/soak/$name number seed log code words took slowest median
	local child='' stopped='' failures='' passed=0 total=0 times=()
	if [[ ! $rounds =~ ^[1-9][0-9]*$ ]]; then
		echo "a soak of no rounds shows nothing: ask for one at least" >&2
		return 2
	fi
	# Logs of an earlier soak would be taken for this one's.
	rm -rf "$logs"
	mkdir -p "$logs"
	echo "soak $name: $rounds rounds, seeds from $first"
	trap 'stopped=", then interrupted"; [ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null || true' INT TERM HUP
	for ((number = 1; number <= rounds; number++)); do
		seed=$((first + number - 1)) took=${EPOCHREALTIME//[!0-9]/}
		log=$(printf '%s/round-%03d.log' "$logs" "$number")
		# A round has a process group of its own: Ctrl-C reaches it once, through here, and what it started ends with it.
		set -m
		round "$seed" >"$log" 2>&1 </dev/null &
		child=$!
		set +m
		wait "$child" 2>/dev/null && code=0 || code=$?
		if [ -n "$stopped" ]; then
			soak_end "$child"
			break
		fi
		took=$(((${EPOCHREALTIME//[!0-9]/} - took) / 1000))
		times+=("$took $number $seed") total=$((total + took))
		if ! words=$(seen "$log"); then
			words="FAILED: $words (exit code $code)"
		elif [ "$code" != 0 ]; then
			words="FAILED: exit code $code ($words)"
		else
			passed=$((passed + 1))
			rm -f "$log"
		fi
		echo "soak $name: round $number of $rounds, seed $seed, $(soak_seconds "$took"): $words"
		[[ $words != FAILED* ]] || failures+="soak $name: round $number failed, seed $seed: ${words#FAILED: }
  log: $log
  again: bin/mise run -f $task 1 --seed $seed
"
	done
	trap - INT TERM HUP
	echo "soak $name: ${#times[@]} of $rounds rounds run$stopped: $passed passed, $((${#times[@]} - passed)) failed"
	if [ "${#times[@]}" != 0 ]; then
		mapfile -t times < <(printf '%s\n' "${times[@]}" | sort -n)
		read -r slowest number seed <<<"${times[-1]}"
		median=${times[${#times[@]} / 2]%% *}
		echo "soak $name: slowest $(soak_seconds "$slowest") (round $number, seed $seed)," \
			"median $(soak_seconds "$median"), in all $(soak_seconds "$total")"
	fi
	printf '%s' "$failures"
	[ -z "$failures" ] || return 1
	[ -z "$stopped" ] || return 130
}

# Waits for a round that was told to end, and kills what does not.
soak_end() {
	local deadline=$((SECONDS + SOAK_GRACE))
	while kill -0 -- "-$1" 2>/dev/null; do
		[ "$SECONDS" -lt "$deadline" ] || kill -KILL -- "-$1" 2>/dev/null || true
		sleep 0.05
	done
}

# Milliseconds as seconds with one decimal.
soak_seconds() {
	printf '%d.%d s' $((($1 + 50) / 1000)) $((($1 + 50) % 1000 / 100))
}
