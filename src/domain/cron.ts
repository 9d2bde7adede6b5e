const MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ')
const DAYS = 'sun mon tue wed thu fri sat'.split(' ')

interface Field {
  readonly name: string
  readonly least: number
  readonly most: number
  /** Words for numbers, from `least` on. */
  readonly words?: readonly string[]
}

const FIELDS: readonly Field[] = [
  { name: 'minute', least: 0, most: 59 },
  { name: 'hour', least: 0, most: 23 },
  { name: 'day of the month', least: 1, most: 31 },
  { name: 'month', least: 1, most: 12, words: MONTHS },
  { name: 'day of the week', least: 0, most: 7, words: DAYS },
]

const PART = /^(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:\/(\d+))?$/

/** What is wrong with a cron expression of five fields; undefined when nothing is. */
export function cronProblem(text: string): string | undefined {
  const fields = text.trim().toLowerCase().split(/\s+/)
  if (fields.length !== FIELDS.length) {
    return 'is not five fields: minute, hour, day of the month, month, day of the week'
  }
  for (const [index, field] of FIELDS.entries()) {
    const written = fields[index] ?? ''
    const isRight = written.split(',').every((part) => isPart(part, field))
    if (!isRight) return `has no ${field.name} in "${written}" (${field.least} to ${field.most})`
  }
  return undefined
}

/** `*`, a value, or a range, each with a step if it likes. */
function isPart(text: string, field: Field): boolean {
  const match = PART.exec(text)
  if (!match) return false
  const [, from = '', to, step] = match
  if (step !== undefined && !(Number(step) >= 1 && Number(step) <= field.most)) return false
  if (from === '*') return to === undefined
  const first = valueOf(from, field)
  const last = to === undefined ? first : valueOf(to, field)
  return first !== undefined && last !== undefined && first <= last
}

function valueOf(text: string, { least, most, words }: Field): number | undefined {
  const word = words?.indexOf(text) ?? -1
  if (word >= 0) return word + least
  if (!/^\d+$/.test(text)) return undefined
  const value = Number(text)
  return value >= least && value <= most ? value : undefined
}
