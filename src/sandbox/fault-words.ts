import type { FaultRule, RefusalKind } from './faults.ts'

/** Words that refuse, each with how often: by default always. */
const refusals: ReadonlyMap<string, RefusalKind> = new Map<string, RefusalKind>([
  ['400', 'invalid'],
  ['401', 'wrongKey'],
  ['402', 'paymentRequired'],
  ['404', 'modelGone'],
  ['429', 'rateLimit'],
  ['500', 'serverError'],
  ['502', 'badGateway'],
  ['503', 'overloaded'],
  ['529', 'siteOverloaded'],
  ['quota', 'quotaGone'],
  ['context', 'contextLength'],
  ['prompt-filter', 'promptFiltered'],
])

/** Words that say all themselves. */
const plain: ReadonlyMap<string, FaultRule> = new Map<string, FaultRule>([
  ['hang', { hang: true }],
  ['hang-headers', { hangAfterHeaders: true }],
  ['cut-headers', { cutBeforeHeaders: true }],
  ['garbage', { garbage: 'not-json' }],
  ['garbage-object', { garbage: 'not-completion' }],
  ['garbage-sse', { garbage: 'invalid-sse' }],
  ['empty', { emptyChoices: true }],
  ['filter', { contentFilter: true }],
  ['no-usage', { usageMissing: true }],
  ['usage-negative', { usageWrong: 'negative' }],
  ['usage-strings', { usageWrong: 'strings' }],
])

/** Words that end on a number, such as `cut-3`. */
const numbered: ReadonlyMap<string, (count: number) => FaultRule> = new Map<string, (count: number) => FaultRule>([
  ['retry-ms', (retryAfterMs) => ({ retryAfterMs, retryAfterAs: 'ms' })],
  ['retry-s', (seconds) => ({ retryAfterMs: seconds * 1000, retryAfterAs: 'seconds' })],
  ['retry-date', (seconds) => ({ retryAfterMs: seconds * 1000, retryAfterAs: 'date' })],
  ['slow', (delayFirstByteMs) => ({ delayFirstByteMs })],
  ['pace', (delayPerChunkMs) => ({ delayPerChunkMs })],
  ['hang', (hangAfterChunks) => ({ hangAfterChunks })],
  ['cut', (cutStreamAfterChunks) => ({ cutStreamAfterChunks })],
  ['end', (endStreamAfterChunks) => ({ endStreamAfterChunks })],
  ['error', (errorAfterChunks) => ({ errorAfterChunks })],
  ['usage', (usageMultiplier) => ({ usageMultiplier })],
  ['prompt', (promptMultiplier) => ({ promptMultiplier })],
  ['extra', (extraCompletionTokens) => ({ extraCompletionTokens })],
  ['overlong', (overlongTokens) => ({ overlongTokens })],
  ['times', (times) => ({ times })],
])

const SEPARATOR = /[!:]/u

/** `sandbox-steady!429!times-2` is the model `sandbox-steady` and two words; `:` separates as well. */
export function splitModelName(name: string): { readonly base: string; readonly words: readonly string[] } {
  const [base = '', ...words] = name.split(SEPARATOR)
  return { base, words }
}

/** The one rule that all words together make; the error says which word is none. */
export function parseFaultWords(words: readonly string[]): readonly FaultRule[] {
  const everyNth = Number(words.find((word) => word.startsWith('nth-'))?.slice('nth-'.length) ?? 1)
  const rules = words.filter((word) => !word.startsWith('nth-')).map((word) => ruleOf(word, everyNth))
  if (!Number.isInteger(everyNth) || everyNth < 1) throw new TypeError('nth must be a whole number of at least 1')
  return [rules.reduce((all, rule) => ({ ...all, ...rule }), {})]
}

function ruleOf(word: string, everyNth: number): FaultRule {
  const refusal = refusals.get(word)
  if (refusal !== undefined) return { [refusal]: { everyNth } }
  const [, name = '', count = ''] = /^(.+)-(\d{1,7})$/u.exec(word) ?? []
  const rule = plain.get(word) ?? numbered.get(name)?.(Number(count))
  if (rule !== undefined && rule.times !== 0) return rule
  const known = [...refusals.keys(), ...plain.keys(), ...[...numbered.keys(), 'nth'].map((each) => `${each}-N`)]
  throw new TypeError(`unknown fault word "${word}"; known: ${known.join(', ')}`)
}
