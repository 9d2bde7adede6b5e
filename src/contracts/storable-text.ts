import { z } from 'zod'

/** Text for a column of Postgres, which takes every character but U+0000, and no half of one: two texts would be stored as one. */
export const storableText = z
  .string()
  .refine((text) => !text.includes('\0'), 'holds U+0000, which cannot be stored')
  .refine((text) => text.isWellFormed(), 'holds half of a surrogate pair, which cannot be stored')
