import { utf8Length } from '#domain/token-bound.ts'
import { countTokens as countCl100k, setMergeCacheSize as rememberCl100k } from 'gpt-tokenizer/encoding/cl100k_base'
import { countTokens as countO200k, setMergeCacheSize as rememberO200k } from 'gpt-tokenizer/encoding/o200k_base'

export type Tokenizer = keyof typeof counters

const counters = { o200k_base: countO200k, cl100k_base: countCl100k } as const

/**
 * What it remembers of merges: with its usual 100,000 entries it took five times as long over text it had not seen, and half
 * a gigabyte where that had no spaces.
 */
for (const remember of [rememberCl100k, rememberO200k]) remember(2_000)

/** Text such as `<|endoftext|>` inside a message is plain text, never a control token. */
const PLAIN = { disallowedSpecial: new Set<string>() }

/**
 * Byte-pair merging is quadratic in the length of an unbroken run: tens of thousands of characters without a space take
 * seconds. Longer runs are counted in slices, of which each may hide a merge that the whole would have made otherwise.
 */
const LONGEST_RUN = 512
const MOST_PER_CUT = 4
const LONG_RUN = new RegExp(`\\S{${LONGEST_RUN}}|\\s{${LONGEST_RUN}}`, 'gu')

/** Whether a text may have such a run, told in a fifth of the time that finding one takes; what is no ASCII may be either. */
function mayHaveLongRun(text: string): boolean {
  let dark = 0
  let blank = 0
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    const isBlank = code === 0x20 || (code >= 0x09 && code <= 0x0d)
    dark = isBlank ? 0 : dark + 1
    blank = isBlank || code >= 0x80 ? blank + 1 : 0
    if (dark === LONGEST_RUN || blank === LONGEST_RUN) return true
  }
  return false
}

/** The tokens of a text; an upper bound of them where the text has runs that are cut. */
export function tokensOfText(tokenizer: Tokenizer, text: string): number {
  const count = counters[tokenizer]
  if (!mayHaveLongRun(text)) return count(text, PLAIN)
  let tokens = 0
  let from = 0
  for (const { 0: run, index } of text.matchAll(LONG_RUN)) {
    tokens += count(text.slice(from, index), PLAIN) + count(run, PLAIN) + 2 * MOST_PER_CUT
    from = index + run.length
  }
  return Math.min(tokens + count(text.slice(from), PLAIN), Math.max(1, utf8Length(text)))
}
