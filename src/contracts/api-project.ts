import { z } from 'zod'
import { nextCursorSchema } from './api-page.ts'
import { constraintsSchema } from './constraints.ts'
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
  .object({ id: z.uuid(), name: z.string(), maxRunningRuns: z.int(), createdAt: moment })
  .meta({ id: 'Project' })

export const projectListSchema = z.object({ projects: z.array(projectSchema), nextCursor: nextCursorSchema })

export const keyRequestSchema = z.strictObject({
  name,
  constraints: constraintsSchema.optional().describe('For all its calls, those of its runs included; for good.'),
})

export const keySchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid(),
    name: z.string(),
    hint: z.string().describe('The beginning of the secret, to tell keys apart.'),
    constraints: constraintsSchema.nullable(),
    createdAt: moment,
    revokedAt: moment.nullable(),
  })
  .meta({ id: 'Key' })

export const keyListSchema = z.object({ keys: z.array(keySchema) })

/** The secret is answered once: only its SHA-256 is kept, so a repeated request is answered without it. */
export const newKeySchema = keySchema
  .extend({ secret: z.string().optional(), remedy: z.string().optional() })
  .meta({ id: 'NewKey' })

export type ProjectView = z.infer<typeof projectSchema>
export type KeyView = z.infer<typeof keySchema>
