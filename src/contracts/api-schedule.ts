import { cronProblem } from '#domain/cron.ts'
import { z } from 'zod'
import { amountSchema, positiveAmountSchema } from './api-money.ts'
import { nextCursorSchema, pageQuerySchema, periodQuery, versionSchema } from './api-page.ts'
import { runRequestSchema } from './api-run.ts'
import { BALANCE_CLASSES } from './names.ts'
import { SKIP_REASONS } from './scheduling.ts'
import { storableText } from './storable-text.ts'

const moment = z.iso.datetime()
/** A year, in seconds. */
const MAX_EVERY = 31_536_000
const MAX_CAPS = 16

const name = storableText.trim().min(1).max(100)
const every = z.int().min(60).max(MAX_EVERY).describe('Seconds, counted from the epoch: give this, or `cron`.')
const cron = storableText
  .max(200)
  .superRefine((text, context) => {
    const message = cronProblem(text)
    if (message !== undefined) context.addIssue({ code: 'custom', message })
  })
  .describe(
    'Five fields: minute, hour, day of the month, month, day of the week. All of them must fit: `0 3 1 * 1` is the first of a ' +
      'month that is a Monday, which other crons read as "or".',
  )
const timeZone = z
  .string()
  .min(1)
  .max(100)
  .refine(isTimeZone, 'is no time zone, such as Europe/Berlin')
  .describe('The name of the zone of `cron`, and of the months of `monthlyCap`.')

const monthlyCap = z
  .array(z.strictObject({ balanceClass: z.enum(BALANCE_CLASSES), amount: positiveAmountSchema }))
  .min(1)
  .max(MAX_CAPS)
  .refine((caps) => new Set(caps.map(kindOf)).size === caps.length, 'caps the same money twice')
  .describe(
    'The most that its runs of one month may take out of the wallet, of each kind of money: a time that would exceed it brings ' +
      'no run. What people top up counts, and is refused nothing.',
  )

export const scheduleRequestSchema = z
  .strictObject({
    name,
    every: every.optional(),
    cron: cron.optional(),
    timeZone: timeZone.default('UTC'),
    run: runRequestSchema.describe('What each run is started with. The key that says so pays.'),
    monthlyCap: monthlyCap.optional(),
  })
  .refine((schedule) => (schedule.every === undefined) !== (schedule.cron === undefined), {
    path: ['every'],
    message: 'give either `every` or `cron`',
  })

export const scheduleChangeSchema = z
  .strictObject({
    name: name.optional(),
    every: every.optional(),
    cron: cron.optional(),
    timeZone: timeZone.optional(),
    run: runRequestSchema.optional(),
    monthlyCap: monthlyCap.nullable().optional().describe('`null`: none any more.'),
    state: z.enum(['active', 'paused']).optional(),
  })
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'changes nothing')
  .refine((change) => change.every === undefined || change.cron === undefined, {
    path: ['every'],
    message: 'give either `every` or `cron`',
  })

export const scheduleSchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid(),
    keyId: z.uuid().describe('Who said last what it runs, and pays.'),
    name: z.string(),
    every: z.int().nullable(),
    cron: z.string().nullable(),
    timeZone: z.string(),
    run: z.unknown().describe('The request of each run.'),
    monthlyCap: z.array(z.object({ balanceClass: z.enum(BALANCE_CLASSES), amount: amountSchema })).nullable(),
    state: z.enum(['active', 'paused']),
    stateReason: z.string().nullable().describe('Why it is paused, when nobody paused it.'),
    isTold: z.boolean().describe('Whether Temporal has heard of its newest change.'),
    createdAt: moment,
    changedAt: moment,
    version: versionSchema,
  })
  .meta({ id: 'Schedule' })

/** One by itself says what Temporal counts of it, too. */
export const scheduleWithTimesSchema = scheduleSchema
  .extend({
    missed: z
      .object({
        late: z.int().describe('Times that passed while Temporal was away, longer ago than is caught up.'),
        overlapping: z.int().describe('Times that came while an earlier one still waited for a worker.'),
      })
      .nullable()
      .describe('Times that are in no list of firings, since it was made. `null`: Temporal does not answer now.'),
  })
  .meta({ id: 'ScheduleWithTimes' })

export const scheduleQuerySchema = pageQuerySchema.extend({
  state: z.enum(['active', 'paused']).optional(),
  projectId: z.string().optional().describe('Required of an operator key; a project key lists its own project.'),
})
export const scheduleListSchema = z.object({ schedules: z.array(scheduleSchema), nextCursor: nextCursorSchema })

export const firingSchema = z
  .object({
    id: z.uuid(),
    scheduledFor: moment,
    firedAt: moment,
    runId: z.uuid().nullable(),
    skipped: z.enum(SKIP_REASONS).nullable().describe('Why there is no run.'),
    detail: z.string().nullable(),
  })
  .meta({ id: 'Firing' })
/** By the times of the schedule. */
export const firingQuerySchema = pageQuerySchema.extend(periodQuery)
export const firingListSchema = z.object({ firings: z.array(firingSchema), nextCursor: nextCursorSchema })

/** As it is stored: amounts in nano, as text. */
export const storedCapsSchema = z
  .array(z.object({ balanceClass: z.enum(BALANCE_CLASSES), currency: z.string(), nano: z.string().regex(/^\d+$/) }))
  .nullable()

function kindOf({ balanceClass, amount }: { readonly balanceClass: string; readonly amount: { currency: string } }) {
  return `${balanceClass} ${amount.currency}`
}

function isTimeZone(text: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: text }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}

export type ScheduleRequest = z.infer<typeof scheduleRequestSchema>
export type ScheduleChange = z.infer<typeof scheduleChangeSchema>
export type MissedTimes = NonNullable<z.infer<typeof scheduleWithTimesSchema>['missed']>
export type ScheduleView = z.infer<typeof scheduleSchema>
export type FiringView = z.infer<typeof firingSchema>
