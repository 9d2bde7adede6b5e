import { z } from 'zod'

/** Postgres takes no offset from here on, and no zone of the world is as far. In hours. */
const OFFSET_END = 16
/** A year has four digits wherever a moment is written, here and in answers. */
const LAST_MS = Date.UTC(9999, 11, 31, 23, 59, 59)

/** A moment that a request names, with its offset: one that the database and the answers can write too. */
export const momentSchema = z.iso
  .datetime({ offset: true })
  .refine(isWithinCalendar, 'is no moment from 1970 to 9999, less than 16 hours from UTC')

/** The same in UTC alone. */
export const utcMomentSchema = z.iso.datetime().refine(isWithinCalendar, 'is no moment from 1970 to 9999')

const EARLIEST_YEAR = 2000
const FRACTION = /\.\d{7,}/

/** The same for one that balances are asked of, in the microseconds that the database counts. */
export const instantSchema = z
  .string()
  .superRefine((text, context) => {
    if (!momentSchema.safeParse(text).success) {
      context.addIssue({ code: 'custom', message: 'is not a moment such as 2026-11-24T03:40:28Z' })
    } else if (FRACTION.test(text)) {
      context.addIssue({ code: 'custom', message: 'is finer than a microsecond' })
    } else if (Number(text.slice(0, 4)) < EARLIEST_YEAR) {
      context.addIssue({ code: 'custom', message: `lies before the year ${EARLIEST_YEAR}` })
    }
  })
  .meta({ examples: ['2026-11-24T03:40:28Z'] })

function isWithinCalendar(text: string): boolean {
  const [, offsetHours = '0'] = /[+-](\d\d):\d\d$/.exec(text) ?? []
  const ms = new Date(text).getTime()
  return Number(offsetHours) < OFFSET_END && ms >= 0 && ms <= LAST_MS
}
