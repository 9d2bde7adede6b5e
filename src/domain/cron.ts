const MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ')
const DAYS = 'sun mon tue wed thu fri sat'.split(' ')

/** Most days of each month, in a leap year. */
const LENGTHS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

interface Field {
  readonly name: string
  readonly least: number
  readonly most: number
  /** Words for numbers, from `least` on. */
  readonly words?: readonly string[]
}

const DAY: Field = { name: 'day of the month', least: 1, most: 31 }
const MONTH: Field = { name: 'month', least: 1, most: 12, words: MONTHS }

const FIELDS: readonly Field[] = [
  { name: 'minute', least: 0, most: 59 },
  { name: 'hour', least: 0, most: 23 },
  DAY,
  MONTH,
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
    if (!valuesOf(written, field)) return `has no ${field.name} in "${written}" (${field.least} to ${field.most})`
  }
  const [, , days = '', months = ''] = fields
  const mostDays = Math.max(...(valuesOf(months, MONTH) ?? []).map((month) => LENGTHS[month - 1] ?? 0))
  const hasDay = valuesOf(days, DAY)?.some((day) => day <= mostDays)
  return hasDay ? undefined : `never comes: there is no day ${days} of month ${months}`
}

/** What a field matches; undefined when it is none. */
function valuesOf(written: string, field: Field): readonly number[] | undefined {
  const parts = written.split(',').map((part) => partValues(part, field))
  return parts.every((part) => part !== undefined) ? parts.flat() : undefined
}

/** `*`, a value, or a range, each with a step if it likes; from a value with a step on, all that follow. */
function partValues(text: string, field: Field): readonly number[] | undefined {
  const match = PART.exec(text)
  if (!match) return undefined
  const [, from = '', to, written = '1'] = match
  const step = Number(written)
  if (!(step >= 1 && step <= field.most) || (from === '*' && to !== undefined)) return undefined
  const first = from === '*' ? field.least : valueOf(from, field)
  const last = to === undefined && (from === '*' || match[3] !== undefined) ? field.most : valueOf(to ?? from, field)
  if (first === undefined || last === undefined || first > last) return undefined
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, index) => first + index * step)
}

function valueOf(text: string, { least, most, words }: Field): number | undefined {
  const word = words?.indexOf(text) ?? -1
  if (word >= 0) return word + least
  if (!/^\d+$/.test(text)) return undefined
  const value = Number(text)
  return value >= least && value <= most ? value : undefined
}
