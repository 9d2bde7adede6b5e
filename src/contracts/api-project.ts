import { z } from 'zod'
import { nextCursorSchema, versionSchema } from './api-page.ts'
import { STORAGES } from './names.ts'
import { storableText } from './storable-text.ts'

const name = storableText.trim().min(1).max(100)
const moment = z.iso.datetime()

export const projectRequestSchema = z.strictObject({ name })

/** Most runs of a project at the same time, as high as an operator may set it. */
const MAX_RUNNING_RUNS = 100_000

/** A century: as good as for ever, and still a date. */
const MAX_KEEP_DAYS = 36_500

const storage = z
  .enum(STORAGES)
  .describe(
    'How prompts and answers are kept. `full`: as long as `keepDays` says. `hash_only`: until 20 minutes after the end of their run, or after a call of no run; then their SHA-256 alone.',
  )
const keepDays = z
  .int()
  .min(1)
  .max(MAX_KEEP_DAYS)
  .nullable()
  .describe('Days that prompts and answers stay after the end of their run, or after a call of no run; null: for ever.')

export const projectChangeSchema = z
  .strictObject({
    maxRunningRuns: z
      .int()
      .min(1)
      .max(MAX_RUNNING_RUNS)
      .describe('Runs at work at the same time; more of them wait. Children and paused runs do not count.'),
    storage,
    keepDays,
  })
  .partial()
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'nothing is to be changed')

export const projectSchema = z
  .object({
    id: z.uuid(),
    name: z.string(),
    maxRunningRuns: z.int(),
    storage,
    keepDays,
    createdAt: moment,
    version: versionSchema,
  })
  .meta({ id: 'Project' })

export const projectListSchema = z.object({ projects: z.array(projectSchema), nextCursor: nextCursorSchema })

export type ProjectView = z.infer<typeof projectSchema>
