import { z } from 'zod'
import { newKeySchema } from './api-key.ts'
import { nextCursorSchema, versionSchema } from './api-page.ts'
import { storableText } from './storable-text.ts'

export const organisationRequestSchema = z.strictObject({ name: storableText.trim().min(1).max(100) })

export const organisationSchema = z
  .object({ id: z.uuid(), name: z.string(), createdAt: z.iso.datetime(), version: versionSchema })
  .meta({ id: 'Organisation' })

/** The secret of its first key is answered once. */
export const newOrganisationSchema = organisationSchema.extend({ operatorKey: newKeySchema }).meta({
  id: 'NewOrganisation',
})

export const organisationListSchema = z.object({
  organisations: z.array(organisationSchema),
  nextCursor: nextCursorSchema,
})

export type OrganisationView = z.infer<typeof organisationSchema>
