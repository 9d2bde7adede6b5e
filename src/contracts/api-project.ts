import { z } from 'zod'
import { nextCursorSchema, versionSchema } from './api-page.ts'
import { storableText } from './storable-text.ts'

const name = storableText.trim().min(1).max(100)
const moment = z.iso.datetime()

export const projectRequestSchema = z.strictObject({ name })

/** Most runs of a project at the same time, as high as an operator may set it. */
const MAX_RUNNING_RUNS = 100_000

export const projectChangeSchema = z.strictObject({
  maxRunningRuns: z
    .int()
    .min(1)
    .max(MAX_RUNNING_RUNS)
    .describe('Runs at work at the same time; more of them wait. Children and paused runs do not count.'),
})

export const projectSchema = z
  .object({ id: z.uuid(), name: z.string(), maxRunningRuns: z.int(), createdAt: moment, version: versionSchema })
  .meta({ id: 'Project' })

export const projectListSchema = z.object({ projects: z.array(projectSchema), nextCursor: nextCursorSchema })

export type ProjectView = z.infer<typeof projectSchema>
